"""
Live streams: one publisher, many sinks.
"""
