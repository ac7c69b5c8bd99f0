bind = "0.0.0.0:5000"
workers = 1


def when_ready(server):
    server.log.info("The bakery is open")
