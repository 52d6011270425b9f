#!/bin/sh
# CompOFA on ImageNet, 8 processes: depth and expand ratio tied to each other, in two phases after the full net.
# Run from the repository's root. Each stage starts from the weights.h5 of the one before.
set -e

mpirun -n 8 python main.py -f examples/classification/ofa/ofa_imagenet_search_fullnet.json -a OFASearcher -o log/classification/ofa/imagenet/search/K7_E6_D4/
mpirun -n 8 python main.py --search -f examples/classification/ofa/ofa_imagenet_search_comp_phase1.json -a OFASearcher -o log/classification/ofa/imagenet/search/COMP_phase1/
mpirun -n 8 python main.py --search -f examples/classification/ofa/ofa_imagenet_search_comp_phase2.json -a OFASearcher -o log/classification/ofa/imagenet/search/COMP_phase2/
