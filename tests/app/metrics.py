"""What /metrics says."""

from prometheus_client.parser import text_string_to_metric_families


async def samples(client):
    """Every sample's value, by name and labels."""
    text = (await client.send("GET", "/metrics")).raw.decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def total(client, name, **labels):
    """The sum of the samples of that name that have these labels."""
    wanted = set(labels.items())
    return sum(value for (each, has), value in (await samples(client)).items() if each == name and wanted <= has)


async def until(client, name, condition, **labels):
    """Return as soon as `condition` is true of the sum: each look is a request, and the service goes on meanwhile."""
    for _ in range(2000):
        if condition(value := await total(client, name, **labels)):
            return
    raise AssertionError(f"{name} {labels} is {value}")
