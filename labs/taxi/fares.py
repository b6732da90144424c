"""Print a table of taxi rides in New York as CSV: made up, the same each time, with the columns of the public set.

    python fares.py > nyc_taxi_fares.csv

The columns are those of Kaggle's "New York City Taxi Fare Prediction" but for its `key`: fares in dollars, times in
UTC, places in degrees. A fare follows the city's tariff of 2010 (2.50 at the start, 0.40 a fifth of a mile, 0.50 more
at night, 1.00 more in the rush hour) along streets that are a quarter longer than the line between both places and
slower by day. On top comes normal noise of `NOISE_DOLLARS`: no model can be expected to be wrong by less (root mean
square) on rides that it has not seen.
"""

import csv
import math
import random
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TextIO

COLUMNS = (
    "fare_amount",
    "pickup_datetime",
    "pickup_longitude",
    "pickup_latitude",
    "dropoff_longitude",
    "dropoff_latitude",
    "passenger_count",
)
ROWS = 20_000
SEED = 2010
NOISE_DOLLARS = 1.0

EARTH_KILOMETERS = 6371.0
SHORTEST_KILOMETERS, LONGEST_KILOMETERS = 1.0, 20.0

# Four whole weeks of April: New York is four hours behind UTC in all of them.
_FIRST_DAY, _DAYS = datetime(2010, 4, 5, tzinfo=UTC), 28
_BEHIND_UTC = timedelta(hours=4)
_CENTER = (-73.98, 40.75)
_DOLLARS_PER_KILOMETER = 5 * 0.40 / 1.609344
_DETOUR = 1.25
# How many rides begin in each hour of the day.
_BUSY = (8, 6, 4, 3, 2, 2, 4, 7, 9, 9, 8, 8, 9, 9, 9, 8, 7, 9, 11, 12, 11, 11, 11, 10)


def distance_kilometers(longitude: float, latitude: float, to_longitude: float, to_latitude: float) -> float:
    """The great-circle distance of two places given in degrees (haversine)."""
    a, b = math.radians(latitude), math.radians(to_latitude)
    turned = math.radians(to_longitude - longitude)
    half = math.sin((b - a) / 2) ** 2 + math.cos(a) * math.cos(b) * math.sin(turned / 2) ** 2
    return 2 * EARTH_KILOMETERS * math.asin(math.sqrt(half))


def expected_dollars(kilometers: float, local: datetime) -> float:
    """The fare without noise. `local` is New York's time, `kilometers` the straight line."""
    weekend, hour = local.weekday() >= 5, local.hour
    # The meter also runs while the cab stands.
    slow = (1.0 if not 7 <= hour < 20 else 1.1) if weekend else (1.3 if 7 <= hour < 20 else 1.05)
    night = 0.50 if hour >= 20 or hour < 6 else 0.0
    rush = 1.00 if 16 <= hour < 20 and not weekend else 0.0
    return 2.50 + night + rush + _DOLLARS_PER_KILOMETER * _DETOUR * slow * kilometers


def rides(rows: int = ROWS, seed: int = SEED) -> Iterator[tuple[str, ...]]:
    """So many rides, as the texts of `COLUMNS`. The same arguments give the same rides."""
    chance = random.Random(seed)  # noqa: S311  # rides, no secrets
    for _ in range(rows):
        day, hour = chance.randrange(_DAYS), chance.choices(range(24), weights=_BUSY)[0]
        local = _FIRST_DAY + timedelta(days=day, hours=hour, seconds=chance.randrange(3600))
        longitude, latitude = chance.gauss(_CENTER[0], 0.020), chance.gauss(_CENTER[1], 0.025)
        wanted = min(SHORTEST_KILOMETERS + chance.expovariate(1 / 2.2), LONGEST_KILOMETERS)
        # Manhattan lies along 29 degrees east of north, and most rides go along it.
        bearing = math.radians(29 + chance.choice((0, 180)) + chance.gauss(0, 35))
        north = math.degrees(wanted / EARTH_KILOMETERS)
        to_latitude = latitude + north * math.cos(bearing)
        to_longitude = longitude + north * math.sin(bearing) / math.cos(math.radians(latitude))
        kilometers = distance_kilometers(longitude, latitude, to_longitude, to_latitude)
        fare = expected_dollars(kilometers, local) + chance.gauss(0, NOISE_DOLLARS)
        places = (f"{degrees:.6f}" for degrees in (longitude, latitude, to_longitude, to_latitude))
        passengers = chance.choices(range(1, 7), weights=(70, 14, 4, 2, 7, 3))[0]
        yield f"{fare:.2f}", f"{local + _BEHIND_UTC:%Y-%m-%d %H:%M:%S} UTC", *places, str(passengers)


def write(target: TextIO, rows: int = ROWS) -> None:
    """Write the table with its header."""
    table = csv.writer(target, lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows(rides(rows))


if __name__ == "__main__":
    write(sys.stdout)
