#!/bin/sh
# AttentiveNAS's space on ImageNet, 8 processes: one stage by the sandwich rule with in-place distillation.
# Run from the repository's root. Each stage starts from the weights.h5 of the one before.
set -e

mpirun -n 8 python main.py --search -f examples/classification/ofa/attentive_nas/ofa_imagenet_search.json -a OFASearcher -o log/classification/ofa/attentive_nas/imagenet/search/sandwich/

# fine-tuning of one sub-network of the last supernet
mpirun -n 8 python main.py -f examples/classification/ofa/attentive_nas/ofa_imagenet_train_subnet.json -a OFATrainer -o log/classification/ofa/attentive_nas/imagenet/train/subnet/
