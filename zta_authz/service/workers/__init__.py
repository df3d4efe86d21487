"""Several worker processes behind one supervisor: `workers: N`.

places      which sockets, files and ports each worker has
control     what supervisor and worker say to each other, over a pair of sockets
worker      the worker's side: serve, and answer the supervisor
process     one worker as its supervisor sees it
exposition  the metrics of several processes as those of one
health      the health listener, for all of them
supervisor  starts them, replaces those that end, passes signals on
"""
