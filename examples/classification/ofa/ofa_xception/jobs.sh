#!/bin/sh
# Xception-41 on ImageNet, 8 processes: six stages (largest, kernel, two of depth, two of expand ratio).
# Run from the repository's root. Each stage starts from the weights.h5 of the one before.
set -e

mpirun -n 8 python main.py -f examples/classification/ofa/ofa_xception/ofa_imagenet_search_fullnet.json -a OFASearcher -o log/classification/ofa/ofa_xception/imagenet/search/K7_E1_D3/
mpirun -n 8 python main.py --search -f examples/classification/ofa/ofa_xception/ofa_imagenet_search_kernel.json -a OFASearcher -o log/classification/ofa/ofa_xception/imagenet/search/K357_E1_D3/
mpirun -n 8 python main.py --search -f examples/classification/ofa/ofa_xception/ofa_imagenet_search_depth_phase1.json -a OFASearcher -o log/classification/ofa/ofa_xception/imagenet/search/K357_E1_D23/
mpirun -n 8 python main.py --search -f examples/classification/ofa/ofa_xception/ofa_imagenet_search_depth_phase2.json -a OFASearcher -o log/classification/ofa/ofa_xception/imagenet/search/K357_E1_D123/
mpirun -n 8 python main.py --search -f examples/classification/ofa/ofa_xception/ofa_imagenet_search_expand_phase1.json -a OFASearcher -o log/classification/ofa/ofa_xception/imagenet/search/K357_E0.8+1_D123/
mpirun -n 8 python main.py --search -f examples/classification/ofa/ofa_xception/ofa_imagenet_search_expand_phase2.json -a OFASearcher -o log/classification/ofa/ofa_xception/imagenet/search/K357_E0.6+0.8+1_D123/

# fine-tuning of one sub-network of the last supernet
mpirun -n 8 python main.py -f examples/classification/ofa/ofa_xception/ofa_imagenet_train_subnet.json -a OFATrainer -o log/classification/ofa/ofa_xception/imagenet/train/subnet/
