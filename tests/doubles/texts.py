"""Texts as Hypothesis draws them."""

from hypothesis import strategies as st


def any_text() -> st.SearchStrategy[str]:
    """Every text that can stand in JSON, half surrogate pairs included.

    JSON cannot tell a pair of surrogates from the one character that it stands for.
    """

    def with_pairs_joined(text: str) -> str:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")

    return st.text(st.characters(codec=None)).map(with_pairs_joined)
