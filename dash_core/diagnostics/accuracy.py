"""What is still known of the previous data after an intervention, and how fast the rest comes back."""

from dash_core.diagnostics.base import Subject

LAST_EPOCH = 5  # that is measured, as in the paper's figure 13: the first epochs tell the methods apart


def previous_accuracy(subject: Subject) -> dict[str, float]:
    """Return the accuracy in [0, 1] on the previous data as `epoch_<k>`, for k = 0 (before any step) to LAST_EPOCH.

    It is that of the model in eval mode over at most MOST_IMAGES previous images, not the running accuracy.
    """
    previous = subject.data.previous_images
    if not previous or subject.epoch > LAST_EPOCH:
        return {}
    outputs, labels = subject.predict(subject.draw(previous))
    return {f"epoch_{subject.epoch}": float((outputs.argmax(1) == labels).double().mean())}
