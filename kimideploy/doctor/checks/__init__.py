"""The checks, by what they look at; importing a module puts its checks into the table."""

from kimideploy.doctor.checks import (
    container,
    driver,
    engine,
    gpus,
    host,
    links,
    network,
    nodes,
    plan,
    secure,
    storage,
)

#: the modules in the order in which their checks are told: what is cheap to know first
ORDER = (
    plan,
    gpus,
    links,
    driver,
    engine,
    host,
    storage,
    network,
    nodes,
    secure,
    container,
)
