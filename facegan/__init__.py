"""facegan: would synthetic identities help my face recognizer, and can I believe the answer?"""

__version__ = "0.1.0"
