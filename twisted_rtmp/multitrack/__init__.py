"""
The configuration service that encoders of several tracks ask (OBS: Enhanced
Broadcasting).
"""
