#!/bin/sh
# ResNet50D on ImageNet, 8 processes: six stages (largest, depth, two of expand ratio, two of width).
# Run from the repository's root. Each stage starts from the weights.h5 of the one before.
set -e

mpirun -n 8 python main.py -f examples/classification/ofa/ofa_resnet50/ofa_imagenet_search_fullnet.json -a OFASearcher -o log/classification/ofa/ofa_resnet50/imagenet/search/D2_E0.35_W1.0/
mpirun -n 8 python main.py --search -f examples/classification/ofa/ofa_resnet50/ofa_imagenet_search_depth.json -a OFASearcher -o log/classification/ofa/ofa_resnet50/imagenet/search/D012_E0.35_W1.0/
mpirun -n 8 python main.py --search -f examples/classification/ofa/ofa_resnet50/ofa_imagenet_search_expand_phase1.json -a OFASearcher -o log/classification/ofa/ofa_resnet50/imagenet/search/D012_E0.250.35_W1.0/
mpirun -n 8 python main.py --search -f examples/classification/ofa/ofa_resnet50/ofa_imagenet_search_expand_phase2.json -a OFASearcher -o log/classification/ofa/ofa_resnet50/imagenet/search/D012_E0.20.250.35_W1.0/
mpirun -n 8 python main.py --search -f examples/classification/ofa/ofa_resnet50/ofa_imagenet_search_width_phase1.json -a OFASearcher -o log/classification/ofa/ofa_resnet50/imagenet/search/D012_E0.20.250.35_W0.81.0/
mpirun -n 8 python main.py --search -f examples/classification/ofa/ofa_resnet50/ofa_imagenet_search_width_phase2.json -a OFASearcher -o log/classification/ofa/ofa_resnet50/imagenet/search/D012_E0.20.250.35_W0.650.81.0/

# fine-tuning of one sub-network of the last supernet
mpirun -n 8 python main.py -f examples/classification/ofa/ofa_resnet50/ofa_imagenet_train_subnet.json -a OFATrainer -o log/classification/ofa/ofa_resnet50/imagenet/train/subnet/
