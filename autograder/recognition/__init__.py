"""Recognise which known mistake a wrong answer makes."""
