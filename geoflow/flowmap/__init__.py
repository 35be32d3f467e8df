"""Flow maps, the method `flow-map`: networks that jump along a flow on S² instead of following it.

`network` has the network, `method` what `Geolocator` uses of it, `losses` what it learns.
"""

from geoflow.flowmap.method import FLOWS as FLOWS
from geoflow.flowmap.method import MAP as MAP
from geoflow.flowmap.method import NETWORKS as NETWORKS
from geoflow.flowmap.method import by_name as by_name
from geoflow.flowmap.method import network_for as network_for
from geoflow.flowmap.method import path_of as path_of
from geoflow.flowmap.method import solved as solved
