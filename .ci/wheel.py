"""Look at what a wheel holds: python3 .ci/wheel.py FILE."""

import sys
import zipfile

names = zipfile.ZipFile(sys.argv[1]).namelist()
tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
plugins = sorted(name for name in names if name.startswith("twisted/"))
wrong = [name for name in names if name.endswith((".pyc", "dropin.cache"))]
print(sys.argv[1], len(names), "files")
if tops != {"twisted", "twisted_rtmp"}:
    sys.exit(f"unexpected folders: {tops}")
if plugins != ["twisted/plugins/twisted_rtmp_plugin.py"]:
    sys.exit(f"unexpected below twisted/: {plugins}")
if wrong or "twisted_rtmp/py.typed" not in names:
    sys.exit(f"should not be there: {wrong}; or py.typed is missing")
