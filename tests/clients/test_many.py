"""Twenty publishers at once lose nothing."""

from contextlib import ExitStack

from capture import Encoder, assertAllStored, assertSame, mediaTags, teed

PUBLISHERS = 20


def test_twentyPublishers(capture, sample, tmp_path):
    names = [f"camera{number}" for number in range(PUBLISHERS)]
    with ExitStack() as running:
        encoders = [
            running.enter_context(
                Encoder(
                    *("-re", "-stream_loop", 1, "-i", sample, "-map", 0, "-c", "copy"),
                    *teed(tmp_path / f"{name}.flv", capture.url(name)),
                )
            )
            for name in names
        ]
        summaries = capture.ended(*names)
        assert [encoder.wait() for encoder in encoders] == [0] * PUBLISHERS
    # They were there at the same time, or this would have shown nothing.
    output = capture.server.output
    first = min(output.index(f"live/{name} ended") for name in names)
    assert output.count(" publishes live/", 0, first) == PUBLISHERS
    for name in names:
        sent = mediaTags(tmp_path / f"{name}.flv")
        assertSame(mediaTags(capture.recording(name)), sent)
        assertAllStored(summaries[name], sent)
