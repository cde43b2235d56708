"""Where slabs are converted: on the threads of this process, or on machines that share its files.

Every slab goes to places known beforehand, so who converts it, and how often, changes no byte.
"""
