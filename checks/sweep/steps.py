def write(plan):
    return None
