#!/bin/sh
# ProxylessNAS at width 1.3 on ImageNet, 8 processes: six stages of progressive shrinking.
# Run from the repository's root. Each stage starts from the weights.h5 of the one before.
set -e

mpirun -n 8 python main.py -f examples/classification/ofa/proxyless_nas/ofa_imagenet_search_fullnet.json -a OFASearcher -o log/classification/ofa/proxyless_nas/imagenet/search/K7_E6_D4/
mpirun -n 8 python main.py --search -f examples/classification/ofa/proxyless_nas/ofa_imagenet_search_kernel.json -a OFASearcher -o log/classification/ofa/proxyless_nas/imagenet/search/K357_E6_D4/
mpirun -n 8 python main.py --search -f examples/classification/ofa/proxyless_nas/ofa_imagenet_search_depth_phase1.json -a OFASearcher -o log/classification/ofa/proxyless_nas/imagenet/search/K357_E6_D34/
mpirun -n 8 python main.py --search -f examples/classification/ofa/proxyless_nas/ofa_imagenet_search_depth_phase2.json -a OFASearcher -o log/classification/ofa/proxyless_nas/imagenet/search/K357_E6_D234/
mpirun -n 8 python main.py --search -f examples/classification/ofa/proxyless_nas/ofa_imagenet_search_expand_phase1.json -a OFASearcher -o log/classification/ofa/proxyless_nas/imagenet/search/K357_E46_D234/
mpirun -n 8 python main.py --search -f examples/classification/ofa/proxyless_nas/ofa_imagenet_search_expand_phase2.json -a OFASearcher -o log/classification/ofa/proxyless_nas/imagenet/search/K357_E346_D234/
