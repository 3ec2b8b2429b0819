"""Handwritten digits: 1,797 scans of 8 x 8 pixels, inside the scikit-learn wheel, so nothing is downloaded.

Origin: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits (test part), UCI Machine Learning
Repository, https://doi.org/10.24432/C50P49, as shipped by scikit-learn. Licence: CC BY 4.0.
Splits: 25 % test, and of the rest 10 % validation, stratified by class; the same for every run unless asked otherwise.
Here the names of the digits in eight languages are added, written out by hand.
"""

import dataclasses

import numpy as np

NAMES: dict[str, tuple[str, ...]] = {
    "English": ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    "Spanish": ("cero", "uno", "dos", "tres", "cuatro", "cinco", "seis", "siete", "ocho", "nueve"),
    "French": ("zéro", "un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf"),
    "German": ("null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"),
    "Turkish": ("sıfır", "bir", "iki", "üç", "dört", "beş", "altı", "yedi", "sekiz", "dokuz"),
    "Russian": ("ноль", "один", "два", "три", "четыре", "пять", "шесть", "семь", "восемь", "девять"),
    "Chinese": ("零", "一", "二", "三", "四", "五", "六", "七", "八", "九"),
    "Hindi": ("शून्य", "एक", "दो", "तीन", "चार", "पाँच", "छह", "सात", "आठ", "नौ"),
}
LONGEST_NAME = max(len(name.encode()) for names in NAMES.values() for name in names)
"""Bytes of the longest name in UTF-8."""


@dataclasses.dataclass(frozen=True)
class Split:
    """images: uint8 [n, 8, 8, 1], 0 is paper and 255 ink. labels: int32 [n], 0 to 9."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self.images[index], int(self.labels[index])


def load(seed: int = 0) -> dict[str, Split]:
    """The splits "train", "validation" and "test". seed: another seed gives another division."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    levels, labels = load_digits(return_X_y=True)
    images = np.round(levels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    labels = labels.astype(np.int32)
    rest, test = train_test_split(np.arange(len(labels)), test_size=0.25, stratify=labels, random_state=seed)
    train, validation = train_test_split(rest, test_size=0.1, stratify=labels[rest], random_state=seed)
    parts = {"train": train, "validation": validation, "test": test}
    return {name: Split(images[part], labels[part]) for name, part in parts.items()}
