"""The running node: receives CT series, has them measured, delivers SEG and SR to the PACS."""
