"""An RTMP client: publishes to servers and plays from them."""
