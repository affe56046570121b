"""The part of Unlatch that runs on the database host.

It needs Python 3.6 or later and nothing but the standard library, and is shipped as one file
(``dist/unlatch-agent.pyz``). It looks at locks and processes, and gives locked files a new inode.
"""

__version__ = "0.1.0"
SCHEMA = 1
