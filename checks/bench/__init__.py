"""How fast and how lean are the analyses, against what this machine can do at all?"""
