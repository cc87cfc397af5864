"""The masks column: one record and one index (records.py), made from the grid, kept candidates or boxes."""
