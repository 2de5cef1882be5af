"""`tinylm recipe`: the laboratory in which the recipe `fast` is chosen (docs/recipe.md).

A question is a group of variants (`questions`). They learn from training rows and are measured on others,
which are never test rows (`data`). Each variant, seed and task is one cell, which runs once (`runs`), and a
report compares the variants of a question (`report`).
"""
