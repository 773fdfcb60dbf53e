"""A reporter that remembers what it was told."""


class Recorder:
    def __init__(self):
        self.said, self.warned, self.steps = [], [], []

    def say(self, text):
        self.said.append(text)

    def warn(self, text):
        self.warned.append(text)

    def progress(self, what, done, total, details=""):
        self.steps.append((what, done, total, details))
