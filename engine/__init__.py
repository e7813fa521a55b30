"""Inference engines behind one protocol: the protocol, its cores, the wire, and both ends of that wire."""

from config.environment import provide_variables

# gRPC tells of every attempt to connect; ``engine.triton.endpoint`` says once why none succeeds. It reads this variable
# when it is imported, which no module outside this package does.
provide_variables({"GRPC_VERBOSITY": "ERROR"})
