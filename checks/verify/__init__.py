"""Does a number come again?"""
