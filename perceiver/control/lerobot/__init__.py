"""Folders of recorded episodes in the format LeRobotDataset v3, read and written without lerobot or torch."""

from perceiver.control.lerobot.layout import IMAGE, VIDEO, Feature, Info
from perceiver.control.lerobot.reading import Dataset, Episode
from perceiver.control.lerobot.writing import Writer

__all__ = ["IMAGE", "VIDEO", "Dataset", "Episode", "Feature", "Info", "Writer"]
