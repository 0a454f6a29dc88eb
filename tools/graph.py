"""Prints the arrows between neighbours in each package of Jobtape: ``python -m tools.graph``.

Neighbours are the modules and subpackages of one package. An arrow says that the first one, or something in it, imports
the second one. Exits with 1 when there is a circle.
"""

import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

import grimp

ROOT = "jobtape"


def arrows(graph: grimp.ImportGraph, package: str) -> dict[str, set[str]]:
    """Return for each neighbour in ``package`` the neighbours that it imports."""
    neighbours = graph.find_children(package)
    home = {module: each for each in neighbours for module in {each} | graph.find_descendants(each)}
    found: dict[str, set[str]] = {each: set() for each in neighbours}
    for module, importer in home.items():
        imported = {home[target] for target in graph.find_modules_directly_imported_by(module) if target in home}
        found[importer] |= imported - {importer}
    return found


def packages(graph: grimp.ImportGraph, package: str = ROOT) -> Iterator[str]:
    """Return ``package`` and every package below it."""
    if children := sorted(graph.find_children(package)):
        yield package
        for child in children:
            yield from packages(graph, child)


def main() -> int:
    """Print each package's neighbours, those that import nothing first."""
    graph = grimp.build_graph(ROOT, cache_dir=None)
    circles = 0
    for package in packages(graph):
        found = arrows(graph, package)
        print(package)
        try:
            for name in TopologicalSorter(found).static_order():
                targets = ", ".join(sorted(each.rpartition(".")[2] for each in found[name]))
                print(f"    {name.rpartition('.')[2]:24} {targets}".rstrip())
        except CycleError as error:
            circles += 1
            print(f"    circle: {' -> '.join(error.args[1])}")
    return 1 if circles else 0


if __name__ == "__main__":
    sys.exit(main())
