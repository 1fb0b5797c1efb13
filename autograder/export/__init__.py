"""Write the marks of a class in other systems' formats."""
