"""
The configuration service for encoders that send several tracks (OBS: Multitrack Video;
Twitch: Enhanced Broadcasting).
"""
