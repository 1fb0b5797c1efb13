"""Turn files, folders and downloads into submissions with owners; student files are parsed in a walled process."""
