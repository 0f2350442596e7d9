"""Texts for properties of the kernels that prepare and split them: what Unicode makes hard, and plain words."""

from typing import Final

from hypothesis import strategies as st

HARD: Final = (
    "aabbcéA ÉßİIΣΣσςΑ'’.:-_ 0١²\n\t\r\x0b\x1f\u2003\u00a0\u0301\u0345"
    "中文한글ﷺfiǅ\U0001f600\U00010400\U000e0100\U0010ffff!,"
)
"""Letters with several lower ones, final sigmas, ligatures, marks, white space of three bytes, digits that are no decimals."""

TEXTS: Final = st.text(st.sampled_from(HARD), max_size=40) | st.text(max_size=20)
