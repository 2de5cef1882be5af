"""`TinyTextClassifier`: tiny BERT encoders behind scikit-learn's verbs."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.validation import check_is_fitted

from tinylm.errors import InputError, UserError
from tinylm.export import hub
from tinylm.fit.budget import MONOTONIC, SYSTEM
from tinylm.fit.columns import (
    ONE,
    SEVERAL,
    data_warnings,
    in_form,
    labels_of,
    rows_of_labels,
    texts_of,
    weights_of,
)
from tinylm.fit.pipeline import Fitted, fit_committee
from tinylm.fit.pretrained import read_pretrained
from tinylm.fit.settings import LabelledTexts, Settings
from tinylm.infer.committee import Committee
from tinylm.infer.predictor import decide
from tinylm.system.cores import worker_count
from tinylm.system.paths import cache_folder
from tinylm.system.ray_engine import ENGINES, engine_named
from tinylm.system.units import bytes_of_size, seconds_of
from tinylm.text.tokenizer import LONG_TEXTS, check_vocabulary_size
from tinylm.train.recipes import Recipe, recipe_named

# How labels are written in a saved model, by numpy's kind of the labels.
LABEL_TYPES = {"i": "int", "u": "int", "f": "float", "b": "bool"}


class TinyTextClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A soft committee of tiny BERT encoders, pre-trained from scratch and fine-tuned on labelled texts.

    Nothing pre-trained is downloaded: the encoders learn language from `corpus` and from the
    texts that they are given. `fit` keeps to a time budget, by default five minutes.

    Args:
        corpus: text for pre-training beside the user's own, as `tinylm.text.corpus.open_corpus`
            takes it ("vital", "wikipedia", "hf:NAME", a file, folder or glob), or None for none.
        pretrained: folder of a pre-trained model that all encoders begin with, from `tinylm pretrain` or a
            `BertForMaskedLM` of HuggingFace. Then nothing is pre-trained, and all of the time is for
            fine-tuning: `corpus` is read by a student alone, and `vocabulary` is that of the model. Whether
            it has read the texts that it will be tested on is not known here.
        unlabelled: more of the user's own text, a column as X is. Pre-training reads it. If these are at
            least as many texts as those with labels, the committee labels some of them, up to 5,000 and 15
            for each second of the budget, and its members learn from these labels, too. The validation texts
            are then not learned in the end.
        recipe: "fast", "paper" or a `Recipe`.
        members: encoders of the committee; each is trained on one core.
        tfidf_member: whether the committee has one member more, a linear SVM on the TF-IDF of words,
            pairs of words and character n-grams.
        student: whether the committee only teaches: an encoder of it learns to predict as all members do
            together, and predicts alone, in a part of their time.
        vocabulary: tokens at most, learnt from the texts; a recipe with the vocabulary of
            bert-base-uncased keeps it.
        max_tokens: texts are cut to this many tokens, [CLS] and [SEP] included.
        long_texts: what is read of a longer text: "head", its beginning, or "head-tail", half as much of
            it and as many tokens of its end.
        max_size: of what `save_pretrained` writes, such as "10MB": the most accurate committee that
            fits, by 8-bit weights, fewer encoders and a smaller vocabulary. None for any size.
        budget: wall-clock time of `fit`, such as "90s", "5min" or "1h"; how many epochs fit into
            it is measured. None trains the recipe's epochs, and then the same `random_state` gives
            the same model on every machine.
        validation: share of the labelled texts that chooses the weights of the members and the thresholds;
            0 for none. In the end all members learn from them, too, where the time is enough and nothing
            is learned from `unlabelled` or by a student.
        class_weight: "balanced", a dict from label to weight, or None, as in scikit-learn. Of
            texts with several labels, "balanced" weighs nothing: their thresholds do that.
        n_jobs: members that are trained at a time: None or -1 for one on each core, -2 for one on
            each but one, as joblib counts. 1 trains in this process, which is best inside a
            `GridSearchCV` with processes of its own. On a Ray, a number, or as many as there is room for.
        engine: what trains the members: "local", the processes of this machine, or "ray", the nodes of a
            cluster: the one that this process has joined (`ray.init`) or that runs on this machine. Without
            either, one is started for the fit. All nodes must share the cache folder (TINYLM_CACHE).
        random_state: determines weights, order, masks, dropout and the validation split.
        verbose: print warnings on the data and what was reached.

    Attributes:
        classes_: the labels, `[labels]`.
        multi_label_: whether a text can have several labels.
        label_form_: how several labels per text were given, see `predict`.
        committee_: the trained `tinylm.infer.committee.Committee`.
        data_warnings_: sentences on what is odd about the texts, such as copies and labels that occur
            once, and on what the budget was not enough for; not there after `from_pretrained`.
        facts_: how it was trained, as in the model card, and the parameters.
        fitted_: the same in full (`tinylm.fit.pipeline.Fitted`); not there after `from_pretrained`.

    Examples:
        >>> from tinylm import TinyTextClassifier
        >>> classifier = TinyTextClassifier(budget="2min").fit(texts, labels)  # doctest: +SKIP
        >>> classifier.predict(["The striker scored twice."])  # doctest: +SKIP
    """

    def __init__(
        self,
        *,
        corpus: str | None = "vital",
        pretrained: str | Path | None = None,
        unlabelled: Any = None,
        recipe: str | Recipe = "fast",
        members: int = 2,
        tfidf_member: bool = True,
        student: bool = False,
        vocabulary: int = 30_000,
        max_tokens: int = 128,
        long_texts: str = "head",
        max_size: str | float | None = None,
        budget: str | float | None = "5min",
        validation: float = 0.1,
        class_weight: Literal["balanced"] | dict[Any, float] | None = "balanced",
        n_jobs: int | None = None,
        engine: str = "local",
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.corpus = corpus
        self.pretrained = pretrained
        self.unlabelled = unlabelled
        self.recipe = recipe
        self.members = members
        self.tfidf_member = tfidf_member
        self.student = student
        self.vocabulary = vocabulary
        self.max_tokens = max_tokens
        self.long_texts = long_texts
        self.max_size = max_size
        self.budget = budget
        self.validation = validation
        self.class_weight = class_weight
        self.n_jobs = n_jobs
        self.engine = engine
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> TinyTextClassifier:  # noqa: N803 (scikit-learn's name)
        """Pre-train, fine-tune and calibrate a committee.

        Args:
            X: texts: a list, tuple or array of strings, a pandas, polars or pyarrow column.
            y: a label for each text, strings or numbers; or several: a list of labels for each, or 0
                and 1 for each text and label (an array, a data frame, a sparse matrix).
            sample_weight: a number from 0 for each text, which multiplies its loss; None for equal ones.

        Returns:
            Itself.

        Raises:
            InputError: (a `ValueError`) something in X, y or the parameters, which it names.
        """
        return self.fit_for_report(X, y, compare=False, sample_weight=sample_weight)

    def check_parameters(self) -> None:
        """Refuse now what `fit` would refuse in the parameters.

        Raises:
            InputError: names the parameter, what it is and what was expected.
        """
        self._settings()

    def fit_for_report(
        self,
        X: Any,  # noqa: N803
        y: Any,
        *,
        compare: bool,
        share: float = 1.0,
        sample_weight: Any = None,
        held_out: Sequence[str] = (),
        begun: float | None = None,
        unfinished: Path | None = None,
        cache: bool = True,
    ) -> TinyTextClassifier:
        """`fit` for callers that do more within the budget, such as `tinylm fit`.

        Args:
            X: texts, as in `fit`.
            y: labels, as in `fit`.
            compare: also train the same committee without pre-training, `fitted_.without`. That takes
                about a quarter of the time for the pre-trained one.
            share: of the budget after which the fit must have ended.
            begun: reading of `time.monotonic` at which the budget began; now by default.
            sample_weight: as in `fit`.
            held_out: texts that pre-training must not read, such as those of the test.
            unfinished: folder for what is finished, should the fit be interrupted.
            cache: whether the fit may begin with pre-trained weights that an earlier one left in the cache
                folder, and leaves its own there.
        """
        settings = replace(self._settings(compare, share, begun, held_out, unfinished), cache=cache)
        texts = texts_of(X)
        if y is None:
            raise InputError("requires y to be passed, but the target y is None: there are no labels.")
        if not texts:
            raise InputError("X holds 0 sample(s); expected at least 2 texts (a minimum of 1 is required).")
        labels = labels_of(y)
        check_consistent_length(texts, labels.targets)
        if len(labels.classes) < 2:
            only = labels.classes.tolist()[0]
            raise InputError(f"y has one class, {only!r}; the number of classes must be at least two.")
        self.classes_, self.label_form_, self.multi_label_ = labels.classes, labels.form, labels.form != ONE
        label_names = [str(label) for label in self.classes_]
        class_weights = self._class_weights(labels.targets)
        weights = weights_of(sample_weight, len(texts))
        labelled = LabelledTexts(texts, labels.targets, label_names, class_weights, weights)
        shared = [] if self.engine == "local" else [cache_folder()]
        if settings.pretrained is not None and shared:
            shared.append(settings.pretrained.folder)
        with engine_named(self.engine, shared=shared) as engine:
            self.fitted_ = fit_committee(labelled, replace(settings, engine=engine))
        self.committee_: Committee = self.fitted_.committee
        self.data_warnings_ = data_warnings(texts, labels.rows) + self._shortcomings(self.fitted_)
        if self.verbose:
            print(*self.data_warnings_, _reached(self.fitted_), sep="\n")
        self.committee_.label_type = LABEL_TYPES.get(self.classes_.dtype.kind, "str")
        self.facts_ = self.fitted_.facts() | {
            "label_type": self.committee_.label_type,
            "label_form": self.label_form_,
            "fit_parameters": _stored(self.get_params(deep=False)),
        }
        return self

    def _shortcomings(self, fitted: Fitted) -> list[str]:
        """What was left out, and why; if the budget was too small, that is also a Python warning."""
        sentences = []
        if fitted.cut:
            texts = len(fitted.split.train) + len(fitted.split.validation)
            sentences.append(
                f"{fitted.cut:,} of {texts:,} texts are longer than the {self.max_tokens} tokens that the"
                " encoders read; they ignore the rest. A larger max_tokens (--max-tokens) reads more and"
                " takes longer; long_texts='head-tail' (--long-texts head-tail) reads beginning and end."
            )
        if fitted.kept_out:
            sentences.append(
                f"{fitted.kept_out:,} of the texts without labels are test or validation texts;"
                " pre-training did not read them."
            )
        if fitted.pretrained and self.unlabelled is not None and not (fitted.self_taught or self.student):
            sentences.append(
                "The texts without labels are fewer than those with labels, so nothing was learned from them."
            )
        if self.tfidf_member and not fitted.form.tfidf_rows:
            sentences.append(
                f"The committee has no TF-IDF member: for {len(self.classes_):,} labels it would be too"
                " large."
            )
        used = min(history.labelled_used for history in fitted.histories)
        if used < len(fitted.split.train):
            sentences.append(
                f"The budget was enough for {used:,} of {len(fitted.split.train):,} labelled texts;"
                " a larger one lets the members learn from all."
            )
            warnings.warn(sentences[-1], stacklevel=4)
        return sentences

    def decision_function(self, X: Any) -> np.ndarray:  # noqa: N803
        """The summed logits.

        Returns:
            `[texts, labels]`; with two labels the difference of the second's and the first's,
            `[texts]`, as in scikit-learn. With several labels per text always the former.
        """
        logits = self._committee().decision_function(texts_of(X))
        if len(self.classes_) == 2 and not self.multi_label_:
            return np.asarray(logits[:, 1] - logits[:, 0])
        return np.asarray(logits)

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """Calibrated probabilities, `float32 [texts, labels]`.

        With several labels per text they are independent, and rows do not sum to 1.
        """
        return self._committee().predict_proba(texts_of(X))

    def predict(self, X: Any) -> Any:  # noqa: N803
        """The label of each text, an array `[texts]`.

        With several labels per text they come in the form that was given to `fit`: a list of lists, or
        an array or a sparse matrix of 0 and 1 (`int64 [texts, labels]`).
        """
        committee = self._committee()
        texts = texts_of(X)
        if not self.multi_label_:
            return self.classes_[committee.decision_function(texts).argmax(1)]
        decisions = decide(committee.predict_proba(texts), committee.thresholds)
        return in_form(decisions, self.classes_, self.label_form_)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:  # noqa: N803
        """Accuracy; with several labels per text, a text counts if all its labels are right."""
        if not self._committee() or not self.multi_label_:
            return float(super().score(X, y, sample_weight))
        found = rows_of_labels(self.predict(X), self.classes_)
        right = [a == b for a, b in zip(found, rows_of_labels(y, self.classes_), strict=True)]
        return float(np.average(right, weights=sample_weight))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the committee and its model card to a new folder: safetensors, JSON and text only.

        Raises:
            UserError: the folder is not empty.
        """
        hub.save(self._committee(), self.facts_, Path(folder))

    def push_to_hub(self, name: str, *, private: bool = False, token: str | None = None) -> str:
        """Upload what `save_pretrained` writes to the HuggingFace hub, as one commit.

        Args:
            name: such as "someone/news"; the repository is created if it does not exist.
            private: whether a new repository is hidden from others.
            token: of the hub; by default the one that `hf auth login` stored.

        Returns:
            The address of the commit.
        """
        return hub.push(self._committee(), self.facts_, name, private=private, token=token)

    @classmethod
    def from_pretrained(cls, name: str | Path, *, revision: str | None = None) -> TinyTextClassifier:
        """A fitted classifier from a folder or, if there is no such folder, from the hub.

        It has the parameters of its fit but for `unlabelled`, whose texts are not stored; `fit`
        trains a new model.

        Args:
            name: of the folder or the repository.
            revision: branch, tag or commit on the hub.
        """
        committee, facts = hub.load(name, revision)
        classifier = cls(**_restored(facts.get("fit_parameters", {}), cls._get_param_names()))
        classifier.committee_, classifier.facts_ = committee, facts
        classifier.multi_label_ = classifier.committee_.thresholds is not None
        classifier.label_form_ = facts.get("label_form", SEVERAL if classifier.multi_label_ else ONE)
        classifier.classes_ = committee.classes_
        return classifier

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.non_deterministic = self.budget is not None
        return tags

    def _committee(self) -> Committee:
        try:
            check_is_fitted(self, "committee_")
        except NotFittedError as error:
            raise NotFittedError(f"{error} Or load one with from_pretrained.") from None
        return self.committee_

    def _settings(
        self,
        compare: bool = False,
        share: float = 1.0,
        begun: float | None = None,
        held_out: Sequence[str] = (),
        unfinished: Path | None = None,
    ) -> Settings:
        if not isinstance(self.members, int | np.integer) or self.members < 1:
            raise InputError(f"members is {self.members!r}; expected a whole number from 1.")
        if not isinstance(self.max_tokens, int | np.integer) or self.max_tokens < 3:
            raise InputError(f"max_tokens is {self.max_tokens!r}; expected a whole number from 3.")
        if self.long_texts not in LONG_TEXTS:
            raise InputError(f"long_texts is {self.long_texts!r}; expected {' or '.join(LONG_TEXTS)}.")
        if not 0 <= self.validation < 1:
            raise InputError(f"validation is {self.validation!r}; expected a share from 0 to below 1.")
        if self.n_jobs is not None and (not isinstance(self.n_jobs, int | np.integer) or self.n_jobs == 0):
            raise InputError(
                f"n_jobs is {self.n_jobs!r}; expected a whole number from 1, -1 for all cores, -2 for all"
                " but one, ..., or None."
            )
        if self.engine not in ENGINES:
            raise InputError(f"engine is {self.engine!r}; expected {' or '.join(ENGINES)}.")
        local = self.engine == "local"
        if not local:  # starting a Ray counts, too
            begun = time.time() if begun is None else begun + time.time() - time.monotonic()
        try:
            recipe = self.recipe if isinstance(self.recipe, Recipe) else recipe_named(self.recipe)
            seconds = None if self.budget is None else share * seconds_of(self.budget)
            max_bytes = None if self.max_size is None else bytes_of_size(self.max_size)
            values = recipe.model_dump() | {"max_tokens": self.max_tokens}
            if recipe.vocabulary is not None:
                check_vocabulary_size(self.vocabulary)
                values["vocabulary"] = self.vocabulary
            pretrained = None
            if self.pretrained is not None:
                pretrained = read_pretrained(self.pretrained, int(self.max_tokens))
            recipe = Recipe.model_validate(values)
        except UserError as error:
            raise InputError(str(error)) from error
        return Settings(
            corpus=self.corpus,
            unlabelled=[] if self.unlabelled is None else texts_of(self.unlabelled, "unlabelled"),
            recipe=recipe,
            members=int(self.members),
            tfidf_member=self.tfidf_member,
            max_bytes=max_bytes,
            seconds=seconds,
            pretrained=pretrained,
            validation=self.validation,
            seed=int(check_random_state(self.random_state).randint(2**31 - 1000)),
            workers=worker_count(self.n_jobs) if local else max(self.n_jobs or 0, 0) or None,
            compare=compare,
            student=self.student,
            held_out=held_out,
            begun=begun,
            unfinished=unfinished,
            long_texts=self.long_texts,
            clock=MONOTONIC if local else SYSTEM,
        )

    def _class_weights(self, targets: np.ndarray) -> np.ndarray | None:
        weight = self.class_weight
        if isinstance(weight, dict):
            labels = self.classes_.tolist()
            if unknown := [label for label in weight if label not in labels]:
                shown = ", ".join(map(repr, labels[:20])) + (", ..." if len(labels) > 20 else "")
                raise InputError(f"class_weight has the label {unknown[0]!r}; expected some of {shown}.")
            for label, value in weight.items():
                if not isinstance(value, int | float | np.number) or not 0 <= value < np.inf:
                    raise InputError(f"class_weight of {label!r} is {value!r}; expected a number from 0.")
        elif weight not in (None, "balanced"):
            raise InputError(f"class_weight is {weight!r}; expected 'balanced', a dict or None.")
        if targets.ndim == 1:
            if weight is None:
                return None
            named = (
                {i: weight.get(c, 1) for i, c in enumerate(self.classes_)}
                if isinstance(weight, dict)
                else weight
            )
            classes = np.arange(len(self.classes_))
            return np.asarray(compute_class_weight(named, classes=classes, y=targets), np.float32)
        if isinstance(weight, dict):
            return np.array([weight.get(c, 1) for c in self.classes_.tolist()], np.float32)
        return None


def _reached(fitted: Fitted) -> str:
    read = f" on {fitted.coverage.paragraphs:,} paragraphs" if fitted.coverage else ""
    reached = f"pre-trained{read}, fitted in {fitted.seconds:.0f} s"
    if (found := fitted.validation) is not None:
        reached += f", accuracy {found.accuracy:.3f} on {found.texts:,} validation texts"
    return reached


def _stored(parameters: dict[str, Any]) -> dict[str, Any]:
    """Parameters in a form that JSON can hold; the user's texts are left out."""
    stored = {name: value for name, value in parameters.items() if name != "unlabelled"}
    if isinstance(recipe := stored.get("recipe"), Recipe):
        stored["recipe"] = recipe.model_dump(mode="json")
    if isinstance(weights := stored.get("class_weight"), dict):  # JSON would make strings of its keys
        stored["class_weight"] = [[_plain(label), _plain(weight)] for label, weight in weights.items()]
    if isinstance(stored.get("random_state"), np.random.RandomState):
        stored["random_state"] = None
    return {name: _plain(value) for name, value in stored.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return value.item() if isinstance(value, np.generic) else value


def _restored(stored: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The parameters that `_stored` gave, those of `names`; folders of before have none."""
    parameters = {name: value for name, value in stored.items() if name in names}
    if isinstance(recipe := parameters.get("recipe"), dict):
        parameters["recipe"] = Recipe.model_validate(recipe)
    if isinstance(weights := parameters.get("class_weight"), list):
        parameters["class_weight"] = dict(weights)
    return parameters
