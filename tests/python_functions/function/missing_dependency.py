"""Needs a package that is not there."""

import a_package_that_nobody_has


def handle(payload):
    return a_package_that_nobody_has.decode(payload)
