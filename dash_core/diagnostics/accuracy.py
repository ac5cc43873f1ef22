"""Accuracy on the previous data: how much of it an intervention keeps, and how fast the rest is learned again."""

from dash_core.diagnostics.base import Subject

LAST_EPOCH = 5  # measured, as in the paper's figure 13: methods differ in the first epochs


def previous_accuracy(subject: Subject) -> dict[str, float]:
    """Return the accuracy in [0, 1] on the previous data as `epoch_<k>`, for k = 0 (before any step) to LAST_EPOCH.

    It is the accuracy in eval mode over at most MOST_IMAGES previous images, not the running train accuracy.
    """
    previous = subject.data.previous_images
    if not previous or subject.epoch > LAST_EPOCH:
        return {}
    outputs, labels = subject.predict(subject.draw(previous))
    return {f"epoch_{subject.epoch}": float((outputs.argmax(1) == labels).double().mean())}
