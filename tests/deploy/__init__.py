"""Tests of what is released and deployed: manifests, bill of materials, audit."""
