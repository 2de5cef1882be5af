"""A classifier as one folder, on disk or on the HuggingFace hub, with its model card.

Everything is safetensors, JSON and plain text. The folder holds the committee (see
`committee.py`), `tinylm.json` with the facts below and `README.md`, the card.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from tinylm.errors import UserError
from tinylm.infer.committee import MEMBERS, Committee, load_committee
from tinylm.infer.latency import Latency
from tinylm.system.files import new_folder, read_record, write_record

CARD = "README.md"


def save(committee: Committee, facts: dict[str, Any], folder: Path, name: str | None = None) -> None:
    """Write a classifier to a new folder, all or nothing.

    Args:
        committee: the model.
        facts: how it came about, for the card and for `load`.
        folder: new or empty.
        name: what the card calls it; the folder's name by default.
    """
    with new_folder(Path(folder)) as partial:
        write(committee, facts, partial, name or Path(folder).name)


def write(committee: Committee, facts: dict[str, Any], folder: Path, name: str) -> None:
    """Write a classifier into an existing, empty folder; arguments as those of `save`."""
    committee.save(folder, int8=facts.get("int8", False))
    (folder / CARD).write_text(model_card(name, committee.label_names, facts), encoding="utf-8")
    write_record(folder, "committee", facts=facts)


def facts_of_student(
    facts: dict[str, Any], student: Committee, teacher: Committee, latency: Latency
) -> dict[str, Any]:
    """The facts of a student: those of the committee that taught it, less what was measured on that.

    Args:
        facts: of the teacher, as in `save`.
        student: a committee of one encoder.
        teacher: the committee.
        latency: of the student.
    """
    return facts | {
        "members": student.member_names,
        "encoders": len(student.members),
        "int8": False,
        "parameters": sum(member.parameters for member in student.members),
        "latency": asdict(latency),
        "taught_by": teacher.member_names,
        **dict.fromkeys(("validation", "test", "without_pretraining", "linear_svm")),
    }


def load(name: str | Path, revision: str | None = None) -> tuple[Committee, dict[str, Any]]:
    """Read a classifier from a folder, or from the hub where there is no such folder.

    Raises:
        UserError: neither a folder nor a model on the hub, no classifier of `TinyTextClassifier`
            there, or a damaged one.
    """
    folder = Path(name)
    if not folder.is_dir():
        folder = _download(str(name), revision)
    committee = load_committee(folder)
    facts = read_record(folder).get("facts")
    if not isinstance(facts, dict) or "label_type" not in facts:
        raise UserError(
            f"{name} was not written by TinyTextClassifier: its tinylm.json holds no facts on labels;"
            " load it with tinylm.infer.committee.load_committee."
        )
    return committee, facts


def push(
    committee: Committee, facts: dict[str, Any], name: str, *, private: bool = False, token: str | None = None
) -> str:
    """Upload a classifier to the hub as one commit.

    Args:
        committee: the model.
        facts: see `save`.
        name: of the repository, such as "someone/news"; it is made where it does not exist.
        private: whether a new repository is hidden from others.
        token: of the hub; by default the one that `hf auth login` stored.

    Returns:
        The address of the commit.

    Raises:
        UserError: the hub cannot be reached or refuses.
    """
    # Imported late: slow, and needed for this alone.
    from tempfile import TemporaryDirectory

    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        folder.mkdir()
        write(committee, facts, folder, name)
        try:
            repository = api.create_repo(name, private=private, exist_ok=True).repo_id
            commit = api.upload_folder(
                repo_id=repository, folder_path=folder, commit_message="Upload a tinylm classifier"
            )
        except Exception as error:  # the hub's client raises errors of several libraries
            raise _hub_error(f"{name} could not be uploaded", error) from error
    return str(commit.commit_url)


def model_card(name: str, labels: list[str], facts: dict[str, Any]) -> str:
    """The model card, Markdown with the hub's front matter."""
    from huggingface_hub import ModelCardData  # slow to import

    tags = ["tinylm", "text-classification"]
    head = ModelCardData(library_name="tinylm", pipeline_tag="text-classification", tags=tags)
    environment = Environment(
        loader=PackageLoader("tinylm.export", ""),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("card.md").render(
        head=head.to_yaml(),
        name=name,
        title=name.rsplit("/", 1)[-1],
        labels=labels,
        facts=facts,
    )


def _download(name: str, revision: str | None) -> Path:
    if name.count("/") > 1 or name.startswith((".", "/", "~")) or not name:
        raise UserError(
            f"{name} is not a folder; expected one that holds a classifier, or a name on the hub."
        )
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.txt", "*.md"]  # nothing else is ever read
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except Exception as error:  # as above
        raise _hub_error(f"{name} is not a folder here and could not be downloaded", error) from error
    if not (folder / MEMBERS).is_file():
        raise UserError(f"{name} on the hub holds no {MEMBERS}: it is not a classifier of tinylm.")
    return folder


def _hub_error(what: str, error: Exception) -> UserError:
    reason = str(error).strip().partition("\n")[0]
    return UserError(f"{what} ({type(error).__name__}: {reason}).")
