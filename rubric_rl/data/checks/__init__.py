"""What is suspect in rubric data: shown in the report, an error with --strict."""
