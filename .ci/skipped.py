"""Fail if a test was skipped: python3 .ci/skipped.py JUNIT.XML."""

import sys
from xml.etree import ElementTree

cases = list(ElementTree.parse(sys.argv[1]).iter("testcase"))
skipped = [
    (case.get("classname"), case.get("name"), reason.get("message"))
    for case in cases
    for reason in case.iter("skipped")
]
print(f"{len(cases)} tests, {len(skipped)} skipped")
for test in skipped:
    print("skipped:", *test)
sys.exit(bool(skipped) or not cases)
