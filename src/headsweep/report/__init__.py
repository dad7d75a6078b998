"""From runs to tables and pages.

read/       runs from folders or MLflow, grouped into cells
stats/      intervals, tests, power, Pareto front: numbers in, numbers out
table/      the comparison: its data (model), how it is built (build), its columns and layout
formats/    a table as terminal text, Markdown, CSV, LaTeX, HTML and JSON
request.py  the options of `headsweep table`, which are written with a table
verify.py   written tables compared with the runs
html/       the page of `headsweep report`, with one file a figure in html/figures/
"""
