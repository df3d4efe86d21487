"""Several worker processes behind one supervisor: `workers: N`.

worker_settings  the sockets, files and ports of each worker
control          messages between supervisor and worker, over a socket pair
worker           the worker's side: serves, and answers the supervisor
process          one worker as seen by its supervisor
exposition       merges the metrics of several processes
health           the health listener for all workers
supervisor       starts workers, replaces those that exit, forwards signals
"""
