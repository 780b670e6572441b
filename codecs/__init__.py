"""Learned image codecs: real bytes, and networks that are trained here.

PyTorch and ``constriction`` are imported by the modules that need them:
``pip install 'vpxrc[codecs]'``.
"""
