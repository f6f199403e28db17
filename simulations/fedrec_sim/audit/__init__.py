"""Attacks on our own releases: does what leaves keep the promise that goes with it?"""
