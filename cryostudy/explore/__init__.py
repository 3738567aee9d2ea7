"""The explorers of chapter 50: loss weights and methods, from stored grids without a kernel, and live with one."""
