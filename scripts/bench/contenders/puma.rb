# As many processes as the worker has, and as many threads in each as puma has by default.

environment 'production'
workers Integer(ENV.fetch('BENCH_PROCESSES'))
threads 5, 5
preload_app!
quiet
