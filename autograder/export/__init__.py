"""Write marks in other systems' formats."""
