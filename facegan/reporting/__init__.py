"""The parts of the report stage: numbers, words, figures, faces and pages."""
