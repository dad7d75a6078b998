from headsweep.cli import main

main()
