"""Shakespeare's plays, next character; every speaking role is one owner.

A role's speeches are put together in the order of the text and cut into windows that
do not overlap. The last fifth of each role's windows is held out: the test part has
the same speakers as the clients, saying what comes later. Roles with too few windows
are left out.

Source: Karpathy, char-rnn (2015), "tinyshakespeare"; one speaker per client as in
McMahan et al., AISTATS 2017, section 3. Differs in: windows do not overlap.
"""

from pathlib import Path

import numpy as np

from fedge.arrays import Int64, UInt8
from fedge.config import DataKind, Task
from fedge.data.dataset import DataInfo, Examples, FederatedData
from fedge.data.files import need_root, read_checked
from fedge.errors import DataError
from fedge.runtime.preprocess import Normalization

FILE = "tiny-shakespeare/input.txt"
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
MAX_BYTES = 2 * 2**20  # the file has 1,115,394
HOW_TO_GET = (
    "the char-rnn repository of Andrej Karpathy, data/tinyshakespeare/input.txt"
)
WINDOW = 64  # characters; about one and a half lines of verse
MIN_WINDOWS = 10  # at least eight for training and two to test
TEST_SHARE = 0.2


def load_shakespeare(root: Path | None = None) -> FederatedData:
    """Return windows of characters and of the ones that follow, both (n, 64).

    Raises:
        DataError: `root` is None, or the file is missing or not the expected one.
    """
    folder = need_root(
        root, name="shakespeare", sha256_by_file={FILE: SHA256}, how_to_get=HOW_TO_GET
    )
    content = read_checked(
        folder / FILE, sha256=SHA256, max_bytes=MAX_BYTES, how_to_get=HOW_TO_GET
    )
    return shakespeare_from_text(content.decode("ascii"))


def shakespeare_from_text(text: str) -> FederatedData:
    """Return the plays in `text` as one owner per role, in alphabetical order.

    Args:
        text: speeches separated by blank lines, each under a line "ROLE:".

    Raises:
        DataError: no role says enough.
    """
    alphabet = "".join(sorted(set(text)))
    windows_by_role = {
        role: windows
        for role, speech in sorted(speech_by_role(text).items())
        if len(windows := _windows(speech, alphabet)) >= MIN_WINDOWS
    }
    if not windows_by_role:
        raise DataError(f"shakespeare: no role has {MIN_WINDOWS} windows of {WINDOW}")
    parts = [_held_out(windows) for windows in windows_by_role.values()]
    sizes = [len(train) for train, _ in parts]
    info = DataInfo(
        name="shakespeare",
        kind=DataKind.text,
        task=Task.next_token,
        input_shape=(WINDOW,),
        num_outputs=len(alphabet),
        output_names=tuple(alphabet),
        normalization=Normalization(),
    )
    return FederatedData(
        info,
        train=_next_characters(np.concatenate([train for train, _ in parts])),
        test=_next_characters(np.concatenate([test for _, test in parts])),
        owners=np.repeat(np.arange(len(parts), dtype=np.int64), sizes),
        owner_names=tuple(windows_by_role),
    )


def speech_by_role(text: str) -> dict[str, str]:
    """Return all that each role says, in the order of the text, without its name.

    A paragraph that does not begin with a line ending in ":" is nobody's.
    """
    result: dict[str, list[str]] = {}
    for paragraph in text.split("\n\n"):
        name, _, speech = paragraph.partition("\n")
        if name.endswith(":") and speech:
            result.setdefault(name[:-1], []).append(speech.rstrip("\n") + "\n")
    return {role: "".join(speeches) for role, speeches in result.items()}


def _windows(speech: str, alphabet: str) -> UInt8:
    """Return uint8 (n, WINDOW + 1): each window and the one character after it."""
    code_of_byte = np.zeros(128, np.uint8)
    code_of_byte[[ord(char) for char in alphabet]] = np.arange(len(alphabet))
    tokens = code_of_byte[np.frombuffer(speech.encode("ascii"), np.uint8)]
    starts = np.arange(0, len(tokens) - WINDOW, WINDOW)
    result: UInt8 = tokens[starts[:, np.newaxis] + np.arange(WINDOW + 1)]
    return result


def _held_out(windows: UInt8) -> tuple[UInt8, UInt8]:
    num_train = len(windows) - round(len(windows) * TEST_SHARE)
    return windows[:num_train], windows[num_train:]


def _next_characters(windows: UInt8) -> Examples:
    targets: Int64 = windows[:, 1:].astype(np.int64)
    return Examples(np.ascontiguousarray(windows[:, :-1]), targets)
