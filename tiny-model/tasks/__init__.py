"""What mlxcel-tiny is taught: one module a family of tasks.

Every task is a function ``(Draw) -> Example``: pure, except that it advances the
generator it is given. See ``base`` for the two types.
"""
